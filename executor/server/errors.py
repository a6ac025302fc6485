"""What a client is told that asked for what it cannot have, as OpenAI's interface words it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """`param` is the field that is wrong; `code` says what is wrong with it, for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after_s = status, param, code, retry_after_s

    @property
    def body(self) -> dict[str, object]:
        kind = {429: "rate_limit_error"}.get(self.status, "invalid_request_error")
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


async def tell(request: Request, error: Exception) -> Response:
    """The response to a request that raised an ApiError."""
    assert isinstance(error, ApiError)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    if error.status == 408:
        headers["Connection"] = "close"  # the rest of the request is not waited for
    return JSONResponse(error.body, error.status, headers)


async def tell_http(request: Request, error: Exception) -> Response:
    """And to one that no route takes."""
    status = getattr(error, "status_code", 500)
    message = f"{request.method} {request.url.path}: {getattr(error, 'detail', 'failed')}"
    return JSONResponse(ApiError(status, message).body, status, getattr(error, "headers", None))


async def tell_nobody(request: Request, error: Exception) -> Response:
    """To one whose client went away while it was sending: for those who count responses."""
    return Response(status_code=499)

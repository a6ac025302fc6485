"""What others measured, beside what their systems' schedules predict."""

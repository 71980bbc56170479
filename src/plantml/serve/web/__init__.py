"""What every request passes: bounds, headers, bodies, errors, the OpenAPI document, telemetry."""

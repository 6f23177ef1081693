"""The HTTP server: admission, one worker that owns the engine, metrics, start and drain."""

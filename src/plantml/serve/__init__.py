"""The server: an API first, defined by OpenAPI, with roles, jobs and a page. Alone imports FastAPI and SQLAlchemy."""

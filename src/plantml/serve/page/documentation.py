"""`/docs`: the API described for people, from files of this server alone."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

FOLDER = Path(__file__).parent

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs() -> FileResponse:
    """Swagger UI, which comes with the package: FastAPI's own page loads it from the internet."""
    return FileResponse(FOLDER / "docs.html", media_type="text/html")

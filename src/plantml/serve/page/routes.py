"""All screens of the page."""

from fastapi import APIRouter

from plantml.serve.page.screens import ask, session

router = APIRouter()
for screen in (session, ask):
    router.include_router(screen.router)

"""All screens of the page."""

from fastapi import APIRouter

from plantml.serve.page.screens import ask, contribute, models, review, session, trainings, users

router = APIRouter()
for screen in (session, ask, contribute, review, models, trainings, users):
    router.include_router(screen.router)

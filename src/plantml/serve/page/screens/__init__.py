"""The screens of the page, a file per subject."""

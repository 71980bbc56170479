"""`plantml`, and `python -m plantml`."""

from plantml.loading import without_collection


def main() -> None:
    """Run the command line and exit with its code."""
    with without_collection():
        from plantml.cli import app
    app.main()


if __name__ == "__main__":
    main()

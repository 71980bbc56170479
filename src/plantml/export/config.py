"""Settings of `plantml export`."""

from plantml.settings import Config, option


class ExportConfig(Config):
    """Settings of `plantml export`."""

    data: str | None = option(
        None, "Photos for verification and int8 calibration.", metavar="DATASET", shown="the model's dataset"
    )
    split: str = option("test", "Split of the dataset to use.")
    samples: int = option(500, "Maximum number of photos to compare.", ge=1)
    max_drop: float = option(
        0.01, "Tolerated drop for int8 of macro-F1, as a mean over targets, or of the AP of boxes.", ge=0, le=1
    )

"""One `plantml detect`: sources are listed, the model is opened and tuned, then photos are classified or watched."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, TextIO

from plantml.concurrency import Listener, Progress, Stop
from plantml.detect import detect, options
from plantml.detect.config import STDOUT, DetectConfig
from plantml.detect.detect import Detection, Fill
from plantml.detect.results import DetectionResult, Extras
from plantml.detect.sources import Selection, Sources, check_apart, collect, parse_since
from plantml.errors import FailuresError, UsageError
from plantml.model import autotune, form_choice
from plantml.model.bundle import Bundle
from plantml.model.pipeline import Pipeline
from plantml.registry.references import open_model
from plantml.settings import Machine
from plantml.storage.addresses import Trust

if TYPE_CHECKING:
    from plantml.detect.similar import Similar

FindSimilar = Callable[[DetectConfig, Machine, Progress], "Similar"]


class Session:
    """A detection from its settings to its result.

    Args:
        sources: as the user wrote them.
        config: settings.
        machine: threads, cache and network access.
        find_similar: embeds the dataset of `config.similar`.
        listener: receives messages and progress.
        stdin: holds a list of photos, if `-` is a source.
        stdout: gets the records if there is no output file.
        fill: processes the photos; by default this process does.
    """

    def __init__(
        self,
        sources: Sequence[str],
        config: DetectConfig,
        machine: Machine,
        find_similar: FindSimilar,
        listener: Listener,
        *,
        stdin: BinaryIO,
        stdout: TextIO,
        fill: Fill | None = None,
    ) -> None:
        if config.model is None:
            raise UsageError("No model is given", "", "Choose one: --model RUN")
        self._names, self._config, self._machine = sources, config, machine
        self._find_similar, self._listener = find_similar, listener
        self._stdin, self._stdout, self._fill = stdin, stdout, fill
        options.check_places(config)
        self._pipeline, self._extras = self._open(config.model)
        check_apart(sources, (config.annotate, config.sort_into, config.sheet))

    @property
    def detection(self) -> Detection:
        """The steps of this detection."""
        return Detection(self._pipeline, self._config, self._extras)

    def list_sources(self) -> Sources:
        """The photos of all sources; what is to be known of the list is said."""
        sources = self._list_sources()
        for note in sources.notes:
            self._listener.say(note)
        return sources

    def run(self, *, fresh: bool) -> tuple[DetectionResult, Exception | None]:
        """Classify all sources, or watch them until a signal; the result, and the error to end with."""
        return self._watch(fresh=fresh) if self._config.watch else self._detect(fresh=fresh)

    def _detect(self, *, fresh: bool) -> tuple[DetectionResult, Exception | None]:
        sources, listener = self.list_sources(), self._listener
        if self._fill is None:
            self._tune(len(sources.photos))
            self._name_faster_forms(len(sources.photos))
        with Stop() as stop:
            result = detect.detect(
                sources, self._pipeline, self._config, stdout=self._stdout, stop=stop, fresh=fresh,
                progress=listener.progress("detecting"), extras=self._extras, fill=self._fill,
            )  # fmt: skip
        if stop:
            hint = "Repeat the same command to resume." if result.out != STDOUT else ""
            what = f"Detection stopped after {result.images} of {len(sources.photos)} images"
            raise stop.error(what, hint)
        if result.failed <= result.allowed:
            return result, None
        return result, FailuresError(
            f"{result.failed} of {result.images} images failed, but only {result.allowed} are tolerated",
            ", ".join(f"{reason} {number}" for reason, number in result.failures.items()),
            "Read the reasons in their records, or raise --max-failures.",
        )

    def _watch(self, *, fresh: bool) -> tuple[DetectionResult, Exception | None]:
        from plantml.detect.alias_watcher import AliasWatcher
        from plantml.detect.watch import watch

        self._tune(0)
        watcher = AliasWatcher(self._pipeline.bundle, self._config, self._open, self._listener.say)
        with Stop() as stop:
            result = watch(
                self._list_sources, self._pipeline, self._config, stdout=self._stdout, stop=stop, fresh=fresh,
                extras=self._extras, say=self._listener.say, new_model=watcher,
            )  # fmt: skip
        images = f"{result.images} image{'' if result.images == 1 else 's'}"
        return result, stop.error(f"Watching stopped after {images}", "Repeat the command to resume.")

    def _open(self, model: str) -> tuple[Pipeline, Extras]:
        """A pipeline of a model, and what is added to its records."""
        config, machine = self._config, self._machine
        bundle, runtime = open_model(
            model,
            runtime=config.runtime,
            device=config.device,
            cache=machine.cache(),
            speed=config.speed,
            machine=machine,
        )
        options.check(config, bundle)
        form = bundle.form.name if bundle.form else form_choice.FLOAT32
        self._listener.detail(f"{runtime.name} on {config.device}, {form}")
        pipeline = detect.build_pipeline(bundle, runtime, config, config.threads or machine.threads)
        return pipeline, self._open_extras(config.model_copy(update={"model": model}), bundle)

    def _open_extras(self, config: DetectConfig, bundle: Bundle) -> Extras:
        texts = similar = None
        if config.advice is not None:
            from plantml.detect import advice

            advice.check_free([target.name for target in bundle.contract.targets])
            texts = advice.read(config.advice, bundle.contract)
            if texts.unused:
                self._listener.detail(f"The model does not know {', '.join(texts.unused)} of {config.advice}")
        if config.similar is not None:
            similar = self._find_similar(config, self._machine, self._listener.progress("embedding the dataset"))
        return Extras(similar, texts)

    def _tune(self, images: int) -> None:
        pipeline, config = self._pipeline, self._config
        setting = autotune.choose(
            pipeline, self._machine, images, threads=config.threads, batch=config.batch, device=config.device
        )
        self._pipeline = replace(pipeline, threads=setting.threads, batch=setting.batch)
        self._listener.detail(
            f"{setting.threads} thread{'' if setting.threads == 1 else 's'}, batch size {setting.batch} ({setting.why})"
        )

    def _name_faster_forms(self, images: int) -> None:
        """In a long run, say that there are faster forms: they are not used unless asked for."""
        bundle = self._pipeline.bundle
        if self._config.speed == "exact" and bundle.forms and images >= autotune.WORTH and self._config.device == "cpu":
            self._listener.say(f"The model has faster forms ({', '.join(bundle.forms)}); to use one: --speed auto")

    def _list_sources(self) -> Sources:
        config = self._config
        since = None if config.since is None else parse_since(config.since)
        trust = Trust.of(config.allow_root, offline=self._machine.offline)
        # A night without new photos is no mistake.
        may_be_empty = config.watch or config.changed_only or since is not None
        covariates = tuple(each.name for each in self._pipeline.bundle.contract.covariates or ())
        selection = Selection(config.split, config.column, since, trust, covariates)
        return collect(list(self._names), self._stdin, selection, may_be_empty=may_be_empty)

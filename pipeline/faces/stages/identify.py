"""Find each face in a gallery."""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from pipeline.engine.stage import Described, Stage, StageOptions
from pipeline.errors import InputError, UsageError, WorkflowError
from pipeline.faces.people.gallery import Gallery, gallery_sha256, open_gallery
from pipeline.faces.people.matching import Metric, Per, checked_metric
from pipeline.faces.people.pictures import Recipe
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_store


class IdentifyOptions(StageOptions):
    """Options of `identify`."""

    gallery: str = Field(
        description="folder with a folder of pictures, or one picture, for each person; or a file by "
        "`reelgraph find --save-gallery` (path, relative to the working directory)"
    )
    metric: Metric = Field("cosine", description="distance: cosine, euclidean, euclidean_l2 or angular, as DeepFace's")
    per: Per = Field("track", description="track: all faces of a track are judged together; face: each one alone")
    threshold: float | None = Field(
        None, gt=0, description="largest distance of a match (default: by the number of people; per face, the model's)"
    )
    all_faces: bool = Field(
        False, description="use all faces of a gallery's picture, as DeepFace does, not only the largest"
    )

    @field_validator("metric", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        try:
            return checked_metric(str(value))
        except UsageError as error:
            raise ValueError(str(error)) from error


class Identify(Stage):
    """The person of a gallery that each track shows, and how sure that is, once the embeddings are stored."""

    needs = ("embedding",)
    scope = "input"
    version = 3  # judged per track; tracks are split at cuts
    Options = IdentifyOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        from pipeline.faces.people.find import outputs

        self.outputs = outputs()
        self._galleries: dict[str, Gallery] = {}

    def content(self) -> str:
        try:
            return gallery_sha256(self.options.gallery, all_faces=self.options.all_faces)
        except InputError as err:  # not the fault of an input
            raise WorkflowError(f"identify.gallery: {err}") from err

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        """Return the arrays of `find.outputs`. Raises InputError if the gallery cannot be used."""
        from pipeline.faces.people import find

        options = self.options
        recipe = Recipe.of_store(open_store(item.store_path).attributes, str(item.store_path))
        key = recipe.key + self.content()
        if key not in self._galleries:
            self._galleries[key] = open_gallery(
                options.gallery, recipe, str(item.store_path), all_faces=options.all_faces
            )
        gallery = self._galleries[key]
        wanted = find.Wanted(options.gallery, options.metric, options.all_faces, options.per, options.threshold)
        found = find.named(item, gallery, wanted)
        specs = find.outputs(wanted.attributes(gallery, item, find.embedding_key(item, recipe)))
        return {spec.name: Described(found[spec.name], spec.attributes) for spec in specs}

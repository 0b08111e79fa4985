"""The settings of the data section: which digits, and how pairs are made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from shared_core.settings import Section

Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Data(Section):
    """Pairs of degraded digits (`pair_compare_stacking.prepare`).

    The defaults are the embedded sample; the course's benchmark is ``source: mnist, protocol: course`` with
    50,000 / 10,000 / 2,000 pairs.
    """

    source: str = Field(
        "digits",
        description="digits (scikit-learn's, needs nothing), mnist, a path (.npz, folder of IDX files, folder of PNGs "
        "by class), hub:OWNER/NAME[@REVISION], or pairs: ready files of pairs",
    )
    path: str | None = Field(
        None,
        description="where source mnist lies, in any of the forms of a path; default: the Hub's copy. Of source pairs: "
        "the folder with train.npz and val.npz; test_public.npz and test_public_labels.csv come along",
    )
    name: str | None = Field(
        None, description="folder of the prepared set; default: source and protocol", pattern=r"^[\w.\-]+$"
    )
    protocol: Literal["disjoint", "course"] = Field(
        "disjoint",
        description="disjoint: no source image occurs in two files; course: the course's files bit for bit, whose "
        "train and val share source images",
    )
    severity: int = Field(6, ge=0, le=6, description="strength of the degradation; the course's is 6")
    weight_diff1: float = Field(0.8, ge=0, le=1, description="probability that the two digits are drawn as neighbours")
    n_train: int = Field(2_000, ge=2, description="pairs in train.npz")
    n_val: int = Field(1_000, ge=2, description="pairs in val.npz")
    n_test_public: int = Field(2_000, ge=2, description="pairs in test_public.npz, which holds no labels")
    n_test_disjoint: int = Field(
        0, ge=0, description="pairs in test_disjoint.npz: labelled, from test images that no other file uses"
    )
    train_seed: Seed = Field(42, description="seed of train.npz")
    val_seed: Seed = Field(43, description="seed of val.npz")
    test_public_seed: Seed = Field(44, description="seed of test_public.npz")
    test_disjoint_seed: Seed = Field(46, description="seed of test_disjoint.npz")
    withheld: float = Field(
        0.1,
        ge=0,
        lt=0.9,
        description="share of the training images, of each digit, that no stream shows, so that stackers can be fitted "
        "on them (pool_withheld.npz); 0: none",
    )
    split_seed: Seed = Field(
        0, description="seed of the split of source images under protocol disjoint, and of what is withheld"
    )

    @property
    def is_given(self) -> bool:
        """Whether there are ready files of pairs, and not the digits that they were made of."""
        return self.source == "pairs"

    @property
    def folder(self) -> str:
        """Name of the prepared set's folder."""
        if self.name is not None:
            return self.name
        if self.is_given:
            return self.source
        known = self.source if self.source in ("digits", "mnist") else "custom"
        return f"{known}-{self.protocol}"

    def sample(self) -> Data:
        """The embedded default with this section's severity and protocol: scikit-learn's digits, small files."""
        small = {
            key: Data.model_fields[key].default
            for key in ("source", "path", "name", "n_train", "n_val", "n_test_public", "n_test_disjoint")
        }
        values: dict[str, Any] = {**self.model_dump(), **small}
        return Data.model_validate(values)

"""Publish a checkpoint on the hub: its files by an explicit list, and a model card with license and base model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

WEIGHTS = ".safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SUFFIXES = (WEIGHTS, ".json", ".jinja", ".txt", ".model", ".md", ".py", ".yaml", ".png", ".jpg")
_CONFIGS = ("config.json", "adapter_config.json")
_CARD = "README.md"
_UNKNOWN_PHRASE = "are unknown to the program that wrote this card"


@dataclass(frozen=True)
class CardFields:
    """Fields of a model card that the files do not tell; None keeps what the card has.

    Attributes:
        license: Identifier of the hub, such as ``apache-2.0``, or ``other``.
        license_name: Name of a license of the kind ``other``.
        license_link: Its address.
        base_model: Hub ids of the models that it was trained from.
        datasets: Hub ids of its training data.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_model: Sequence[str] = ()
    datasets: Sequence[str] = ()


@dataclass(frozen=True)
class Publication:
    """The files that are uploaded.

    Attributes:
        folder: The checkpoint.
        repo: Hub id of the repository.
        files: Names of the files in the folder, the card excepted.
        left_out: Names of the other files.
        card: Text of the card.
        warnings: Facts that readers of the card will miss.
    """

    folder: Path
    repo: str
    files: list[str]
    left_out: list[str]
    card: str
    warnings: list[str] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum((self.folder / name).stat().st_size for name in self.files) + len(self.card.encode())


def prepare_publication(folder: Path, repo: str, fields: CardFields) -> Publication:
    """Choose the files of a checkpoint and complete its card; nothing is uploaded.

    Args:
        folder: The checkpoint, or the folder of an adapter.
        repo: Hub id, ``owner/name``.
        fields: Fields of the card.

    Raises:
        ValueError: The folder is no checkpoint in safetensors, the hub id is malformed, or the license is not set.
    """
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo)
    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} is not a hub id: give OWNER/NAME")
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not any((folder / name).is_file() for name in _CONFIGS):
        raise ValueError(f"{folder} is not a checkpoint: it has no {' and no '.join(_CONFIGS)}")
    if not any(path.suffix == WEIGHTS for path in found):
        pickled = any(path.suffix in _PICKLES for path in found)
        reason = ": its weights are pickles; 'convllava convert' rewrites them" if pickled else ""
        raise ValueError(f"{folder} has no weights in safetensors{reason}")
    card = _completed_card(folder, repo, fields)
    names = [path.name for path in found if path.name != _CARD]
    chosen = [name for name in names if name.endswith(_SUFFIXES)]
    others = sorted(f"{path.name}/" for path in folder.iterdir() if path.is_dir())
    left_out = [name for name in names if name not in chosen] + others
    return Publication(folder, repo, chosen, left_out, str(card), _warnings(card))


def _completed_card(folder: Path, repo: str, fields: CardFields) -> "ModelCard":
    """Return the card of a folder, written from its files if there is none, with the given fields."""
    from huggingface_hub import ModelCard

    path = folder / _CARD
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif (folder / "config.json").is_file():
        from .layouts.convllava import model_card
        from .layouts.registry import open_checkpoint

        text = model_card(open_checkpoint(folder), repo).replace(", license and measured", " and measured")
    else:
        text = f"---\nlibrary_name: peft\npipeline_tag: image-text-to-text\ntags: [convllava]\n---\n\n# {repo}\n"
    card = ModelCard(text, ignore_metadata_errors=False)
    given = {name: value for name, value in vars(fields).items() if value}
    for name, value in given.items():
        setattr(card.data, name, value if isinstance(value, str) else list(value))
    if not card.data.get("license"):
        raise ValueError(
            "the license is not set: give --license, such as apache-2.0; it has to agree with the licenses of the base "
            "model and of the training data"
        )
    if card.data.get("license") == "other" and not (card.data.get("license_name") and card.data.get("license_link")):
        raise ValueError("--license other needs --license-name and --license-link")
    return card


def _warnings(card: "ModelCard") -> list[str]:
    found = []
    if not card.data.get("base_model"):
        found.append("the card names no base model (--base-model)")
    if _UNKNOWN_PHRASE in card.text:
        found.append("the card's last paragraph says that training is unknown: write it into README.md")
    return found


def publish(publication: Publication, *, private: bool = False) -> str:
    """Upload in one commit, make the repository if it is missing, and return the address of the commit.

    Raises:
        ValueError: The hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    operations = [CommitOperationAdd(name, publication.folder / name) for name in publication.files]
    operations.append(CommitOperationAdd(_CARD, publication.card.encode()))
    try:
        api.create_repo(publication.repo, private=private, exist_ok=True)
        commit = api.create_commit(publication.repo, operations, commit_message="Upload the checkpoint")
    except HfHubHTTPError as error:
        raise ValueError(f"the hub refused {publication.repo}: {error}; 'hf auth login' logs in") from error
    except OSError as error:
        raise ValueError(f"the hub cannot be reached ({error}): --dry-run works without it") from error
    return str(commit.commit_url)

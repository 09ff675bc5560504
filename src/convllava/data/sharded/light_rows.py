"""Rows of an Arrow table without the bytes of their images: what a check of all records needs."""

from typing import Any

Row = dict[str, Any]


def light_rows(table: Any) -> list[Row]:
    """Return the rows of an Arrow table with empty bytes for images."""
    import pyarrow  # type: ignore[import-untyped]

    heavy = [field.name for field in table.schema if _holds_bytes(field.type)]
    rows: list[Row] = table.drop_columns(heavy).to_pylist() if len(heavy) < len(table.schema) else [{}] * len(table)
    for name in heavy:
        is_list = pyarrow.types.is_list(table.schema.field(name).type)
        for row, count in zip(rows, _image_counts(table.column(name), is_list), strict=True):
            row[name] = [{"bytes": b"", "path": ""}] * count if count is not None else None
    return rows


def _holds_bytes(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    if pyarrow.types.is_struct(kind):
        return any(_holds_bytes(kind.field(index).type) for index in range(kind.num_fields))
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _image_counts(column: Any, is_list: bool) -> list[int | None]:
    from pyarrow import compute

    if is_list:
        counts: list[int | None] = compute.list_value_length(column).to_pylist()
        return counts
    return [1 if valid else None for valid in compute.is_valid(column).to_pylist()]

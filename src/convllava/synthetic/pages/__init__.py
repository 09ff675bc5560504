"""Composed pages: glyphs, layout, content and questions of printed documents."""

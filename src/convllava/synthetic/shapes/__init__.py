"""Scenes of colored shapes of any size: arrangement, painting and questions."""

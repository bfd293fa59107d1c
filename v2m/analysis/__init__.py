"""Measures of sound and picture that need neither weights nor files."""

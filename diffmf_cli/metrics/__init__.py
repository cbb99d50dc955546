"""Fusion metrics: definitions, tables and reports."""

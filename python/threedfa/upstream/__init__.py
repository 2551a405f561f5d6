"""Packs made from the files of the upstream projects, without their software."""

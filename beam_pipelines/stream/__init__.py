"""Announcements in, generations out."""

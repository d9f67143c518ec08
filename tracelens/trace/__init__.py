"""The one data model between readers and analyses."""

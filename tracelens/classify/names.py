"""Short."""
def short_name(name: str) -> str:
    return name

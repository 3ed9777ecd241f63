"""Speed, measured here and now beside the peers that are installed. Prints, asserts nothing."""


def run(what: str, repeats: int) -> None:
    raise NotImplementedError

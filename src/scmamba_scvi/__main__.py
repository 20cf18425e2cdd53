"""``python -m scmamba_scvi``: the command ``scmamba-scvi``, where the folder of commands is not on the path."""

from .cli import main

if __name__ == "__main__":
    main()

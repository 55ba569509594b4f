"""Takes the arguments of `python -m pellucid`. Gives them to the command line. Knows nothing else."""

from pellucid.apps.cli import main

if __name__ == "__main__":
    main()

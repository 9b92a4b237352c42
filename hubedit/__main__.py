"""`python -m hubedit`, which launchers such as accelerate start."""

from hubedit.cli import main

if __name__ == "__main__":
    main()

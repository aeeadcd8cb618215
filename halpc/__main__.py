"""`python -m halpc`."""

from halpc.cli import main

raise SystemExit(main())

"""`python -m msg_deploy` is the program msg-deploy."""

from msg_deploy.cli import main

main()

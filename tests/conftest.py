"""Before anything imports a reactor: the one the service runs on."""

from extenbot.tap import install_reactor

install_reactor()

"""The package's logger: what its name says to a user who sets levels or handlers."""

import logging

logger = logging.getLogger('timm_repaint')

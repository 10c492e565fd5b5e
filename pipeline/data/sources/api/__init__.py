"""Images and boxes from HTTP APIs: described in the config, or Label Studio's and CVAT's."""

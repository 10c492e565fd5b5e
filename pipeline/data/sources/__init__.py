"""Where raw data comes from: files, archives, video, databases and APIs, each as image files and their annotations."""

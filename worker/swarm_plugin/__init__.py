"""kubeswarm's plugin protocol: this worker behind external plugins, and Shoal as a plugin of kubeswarm's agents."""

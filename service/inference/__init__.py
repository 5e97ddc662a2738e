"""From the bytes of a picture to its embedding. Knows neither HTTP nor the gallery."""

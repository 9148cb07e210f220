"""Has it forgotten, and does it still recommend? Measures of section-by-section evidence, from predictions."""

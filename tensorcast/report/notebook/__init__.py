"""What notebooks show: cells of HTML, figures of Plotly."""

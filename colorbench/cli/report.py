"""`colorbench report`"""

import click


@click.command()
@click.argument("folder", metavar="RUN")
def report(folder: str) -> None:
    """Write the tables and figures of a run again, from its records alone.

    comparison.md, comparison.csv, losses.png and pictures.png are written into the folder; the table is printed.
    """
    from colorbench import report
    from colorbench.runs.folder import RunFolder

    click.echo(report.write(RunFolder(folder)))

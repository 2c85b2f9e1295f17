"""`colorbench report`"""

import click


@click.command()
@click.argument("folder", metavar="RUN")
def report(folder: str) -> None:
    """Write the tables and figures of a run again, from its records alone.

    The comparison, the ablations, the details and the figures are written into the folder; the tables are printed.
    """
    from colorbench import report
    from colorbench.runs.folder import RunFolder

    click.echo(report.write(RunFolder(folder)))

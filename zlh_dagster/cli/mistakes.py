"""What went wrong, as one line for the person who ran the command."""

import typer


def usage(message: str, context: typer.Context | None) -> str:
    """One line for a command line that cannot be used; empty when help was shown instead."""
    text = " ".join(message.replace("Value error, ", "").split()).rstrip(".")
    command = context.command_path if context else "zlh"
    return f"{text}. See {command} --help." if text else ""


def explain(error: Exception) -> str:
    """One line for an error, without secrets."""
    from sqlalchemy.exc import SQLAlchemyError

    from zlh_dagster.resources.services import Services
    from zlh_dagster.resources.settings import SettingsError, load_settings

    if isinstance(error, SettingsError):
        return f"settings: {error}"
    if isinstance(error, SQLAlchemyError):
        from zlh_dagster.resources.database import explain as explain_database

        return explain_database(error)
    text = " ".join(str(error).split()) or type(error).__name__
    try:
        return Services(load_settings()).redactor.text(text)
    except SettingsError:
        return text

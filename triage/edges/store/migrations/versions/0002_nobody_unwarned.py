"""nobody unwarned: the ladder, problems, accounts, the audit trail."""

import sqlalchemy as sa
from alembic import op

from triage.edges.store.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROLES = ("viewer", "reader", "admin")


def upgrade() -> None:
    _alerts_speak_for_studies()
    _reports_and_series()
    _watching()
    _accounts()
    _audit()


def _alerts_speak_for_studies() -> None:
    with op.batch_alter_table("alert") as batch:
        batch.add_column(sa.Column("study_instance_uid", sa.String(64), nullable=True))
    with op.batch_alter_table("result") as batch:
        batch.add_column(sa.Column("alert_id", sa.Integer(), nullable=True))
    op.execute("UPDATE result SET alert_id = (SELECT id FROM alert WHERE alert.result_id = result.id)")
    op.execute(
        "UPDATE alert SET study_instance_uid = (SELECT study_instance_uid FROM series"
        " JOIN result ON result.series_id = series.id WHERE result.id = alert.result_id)"
    )
    op.create_table(
        "alert_of_study",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("state", _states("pending", "sent", "acknowledged"), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("raised_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("sent_at", UtcDateTime(timezone=True)),
        sa.Column("acknowledged_at", UtcDateTime(timezone=True)),
        sa.Column("acknowledged_by", sa.Text()),
    )
    op.execute(
        "INSERT INTO alert_of_study SELECT id, study_instance_uid, state, pages, last_error, raised_at,"
        " sent_at, acknowledged_at, acknowledged_by FROM alert"
    )
    _replace_alert_table()
    op.create_index("ix_alert_study_instance_uid", "alert", ["study_instance_uid"])
    with op.batch_alter_table("result") as batch:
        batch.create_foreign_key("fk_result_alert_id", "alert", ["alert_id"], ["id"])
        batch.create_index("ix_result_alert_id", ["alert_id"])
    op.create_table(
        "page",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("alert_id", sa.Integer(), sa.ForeignKey("alert.id"), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("call", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("taken", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_page_alert_id", "page", ["alert_id"])


def _replace_alert_table() -> None:
    op.drop_index("ix_alert_state", "alert")
    op.drop_table("alert")
    op.rename_table("alert_of_study", "alert")
    op.create_index("ix_alert_state", "alert", ["state"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER SEQUENCE alert_of_study_id_seq RENAME TO alert_id_seq")
        op.execute("SELECT setval('alert_id_seq', (SELECT coalesce(max(id), 0) + 1 FROM alert), false)")


def _reports_and_series() -> None:
    with op.batch_alter_table("report") as batch:
        batch.add_column(sa.Column("queued_at", UtcDateTime(timezone=True), nullable=True))
    op.execute("UPDATE report SET queued_at = created_at")
    with op.batch_alter_table("report") as batch:
        batch.alter_column("queued_at", existing_type=UtcDateTime(timezone=True), nullable=False)
    with op.batch_alter_table("series") as batch:
        batch.add_column(sa.Column("freed_at", UtcDateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("newest_instance_id", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE series SET newest_instance_id = coalesce("
        "(SELECT max(id) FROM instance WHERE instance.series_id = series.id), 0)"
    )
    with op.batch_alter_table("series") as batch:
        batch.alter_column("newest_instance_id", existing_type=sa.Integer(), server_default=None)
    is_unseen = sa.text("newest_instance_id > evaluated_up_to")
    op.create_index("ix_series_unseen", "series", ["id"], sqlite_where=is_unseen, postgresql_where=is_unseen)
    is_held = sa.text("freed_at IS NULL")
    op.create_index(
        "ix_series_held", "series", ["last_instance_at"], sqlite_where=is_held, postgresql_where=is_held
    )
    op.drop_index("ix_series_state", "series")
    op.create_index("ix_series_state", "series", ["state", "first_instance_at"])
    op.create_index("ix_series_first_instance_at", "series", ["first_instance_at"])


def _watching() -> None:
    op.create_table(
        "sender",
        sa.Column("ae_title", sa.String(16), primary_key=True),
        sa.Column("first_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("last_at", UtcDateTime(timezone=True), nullable=False),
    )
    op.execute(
        "INSERT INTO sender SELECT calling_ae, min(first_instance_at), max(last_instance_at) FROM series"
        " GROUP BY calling_ae"
    )
    op.create_table(
        "problem",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("opened_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("told_at", UtcDateTime(timezone=True)),
        sa.Column("closed_at", UtcDateTime(timezone=True)),
    )
    is_open = sa.text("closed_at IS NULL")
    op.create_index(
        "ix_problem_open",
        "problem",
        ["kind", "subject"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def _accounts() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False, unique=True),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", _states(*_ROLES, name="role"), nullable=False),
        sa.Column("must_change_password", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", UtcDateTime(timezone=True)),
    )
    op.create_table(
        "login",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("account_id", sa.Integer(), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", UtcDateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_login_account_id", "login", ["account_id"])
    op.create_table(
        "api_token",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False, unique=True),
        sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("role", _states(*_ROLES, name="role"), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", UtcDateTime(timezone=True)),
    )


def _audit() -> None:
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("series_id", sa.Integer()),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_index("ix_audit_entry_at", "audit_entry", ["at"])
    op.create_index("ix_audit_entry_series_id", "audit_entry", ["series_id"])
    op.create_table(
        "audit_forwarding",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("up_to_entry_id", sa.Integer(), nullable=False),
    )
    op.execute("INSERT INTO audit_forwarding (id, up_to_entry_id) VALUES (1, 0)")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_entry_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    else:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_entry_refuses_{change.lower()} BEFORE {change} ON audit_entry"
                " BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
            )
        # INSERT OR REPLACE deletes without asking the trigger above.
        op.execute(
            "CREATE TRIGGER audit_entry_refuses_replace BEFORE INSERT ON audit_entry"
            " WHEN EXISTS (SELECT 1 FROM audit_entry WHERE id = NEW.id)"
            " BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
        )


def downgrade() -> None:
    for table in ("audit_forwarding", "audit_entry", "api_token", "login", "account", "problem", "sender"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
    op.drop_table("page")
    for index in ("ix_series_first_instance_at", "ix_series_state", "ix_series_held", "ix_series_unseen"):
        op.drop_index(index, "series")
    op.create_index("ix_series_state", "series", ["state"])
    with op.batch_alter_table("series") as batch:
        batch.drop_column("freed_at")
        batch.drop_column("newest_instance_id")
    with op.batch_alter_table("report") as batch:
        batch.drop_column("queued_at")
    _alerts_speak_for_results()


def _alerts_speak_for_results() -> None:
    with op.batch_alter_table("alert") as batch:
        batch.add_column(sa.Column("result_id", sa.Integer(), nullable=True))
    op.execute("UPDATE alert SET result_id = (SELECT max(id) FROM result WHERE result.alert_id = alert.id)")
    with op.batch_alter_table("result") as batch:
        batch.drop_index("ix_result_alert_id")
        batch.drop_constraint("fk_result_alert_id", type_="foreignkey")
        batch.drop_column("alert_id")
    op.drop_index("ix_alert_study_instance_uid", "alert")
    with op.batch_alter_table("alert") as batch:
        batch.drop_column("study_instance_uid")
        batch.alter_column("result_id", existing_type=sa.Integer(), nullable=False)
        batch.create_foreign_key("fk_alert_result_id", "result", ["result_id"], ["id"])
        batch.create_unique_constraint("uq_alert_result_id", ["result_id"])


def _states(*names: str, name: str = "alertstate") -> sa.Enum:
    return sa.Enum(*names, name=name, native_enum=False, length=16)

CREATE TABLE "users" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "users_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9007199254740991 START WITH 1 CACHE 1),
	"username" text NOT NULL,
	"email" text NOT NULL,
	"version" integer DEFAULT 1 NOT NULL,
	"idempotency_key" text,
	"idempotency_hash" text,
	"created_at" timestamp(3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp(3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "users_username_check" CHECK (char_length("users"."username") between 1 and 80 and "users"."username" is nfc normalized),
	CONSTRAINT "users_username_plain" CHECK ("users"."username" = btrim("users"."username") and "users"."username" !~ '[\u0001-\u001f\u007f-\u009f]'),
	CONSTRAINT "users_email_check" CHECK (char_length("users"."email") between 3 and 254 and position('@' in "users"."email") > 1),
	CONSTRAINT "users_email_plain" CHECK ("users"."email" !~ '[\u0001-\u001f\u007f-\u009f]'),
	CONSTRAINT "users_version_check" CHECK ("users"."version" > 0)
);
--> statement-breakpoint
CREATE UNIQUE INDEX "users_username_key" ON "users" USING btree (normalize(casefold("username" collate pg_catalog.pg_unicode_fast), nfc));--> statement-breakpoint
CREATE UNIQUE INDEX "users_email_key" ON "users" USING btree (normalize(casefold("email" collate pg_catalog.pg_unicode_fast), nfc));--> statement-breakpoint
CREATE UNIQUE INDEX "users_idempotency_key" ON "users" USING btree ("idempotency_key") WHERE "users"."idempotency_key" is not null;
/** Whether and how TLS is used, in libpq's words (PostgreSQL, section 32.19). */
export const SSL_MODES = ['disable', 'prefer', 'require', 'verify-full'] as const

/** Where the database is and who logs in. */
export type Address = {
  /** A name, an IP address, or the folder of the server's Unix socket. */
  host: string
  port: number
  database: string
  user: string
  password: string
  ssl: (typeof SSL_MODES)[number]
}

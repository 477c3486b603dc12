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

/**
 * Reads a URL such as postgres://user:password@host:5432/database?sslmode=require. Its parameter `host` is for what is
 * no host of a URL: the folder of a Unix socket.
 * @throws with what is wrong with the text
 */
export function parseAddress(text: string): Address {
  const url = URL.parse(text)
  const host = url?.searchParams.get('host') || url?.hostname.replace(/^\[|\]$/g, '')
  if (!url || !/^postgres(ql)?:$/.test(url.protocol) || !host || url.pathname.length < 2) {
    throw new Error('it must be like postgres://user:password@host:5432/database')
  }
  if (/%(?![\da-f]{2})/i.test(text)) throw new Error('write % as %25')
  const unknown = [...url.searchParams.keys()].find((name) => name !== 'sslmode' && name !== 'host')
  if (unknown !== undefined) throw new Error(`of parameters, host and sslmode are supported, not ${unknown}`)
  const sslmode = url.searchParams.get('sslmode') ?? 'disable'
  const ssl = SSL_MODES.find((mode) => mode === sslmode)
  if (!ssl) throw new Error(`sslmode must be one of ${SSL_MODES.join(', ')}`)
  const [database = '', user, password = ''] = [url.pathname.slice(1), url.username, url.password].map(
    decodeURIComponent,
  )
  return { host, port: Number(url.port || 5432), database, user: user || 'postgres', password, ssl }
}

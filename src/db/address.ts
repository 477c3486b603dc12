import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'

/** Whether and how TLS is used, in libpq's words (PostgreSQL, section 32.19). On a Unix socket it never is. */
export const SSL_MODES = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full'] as const

/**
 * Where the database is and who logs in. `host` is a name, an IP address, or the folder of the server's Unix socket.
 * `rootCert` is the file of the certificates that may vouch for the server, in PEM; without it those count that Node trusts.
 */
export type Address = ReturnType<typeof parseAddress>

/** libpq's form (PostgreSQL, section 32.1.1.2). It has hosts that a URL has not: none, and IPv6 with a zone. */
const URI =
  /^postgres(?:ql)?:\/\/(?:(?<user>[^:/?]*)(?::(?<password>[^/?]*))?@)?(?<host>[^/?]*?)(?::(?<port>\d*))?(?:\/(?<dbname>[^?]*))?(?:\?(?<query>.*))?$/
/** The parameters of libpq that are supported. Each takes precedence over its part of the URI. */
const PARAMETERS = ['host', 'port', 'dbname', 'user', 'password', 'sslmode', 'sslrootcert', 'channel_binding']

/**
 * Reads a URI such as postgres://user:password@host:5432/database?sslmode=require, in the form that libpq defines.
 * @throws with what is wrong with the text
 */
export function parseAddress(text: string) {
  if (/%(?![\da-f]{2})/i.test(text)) throw new Error('write % as %25')
  const { query = '', ...parts } = URI.exec(text)?.groups ?? {}
  const decoded = Object.entries(parts).map(([name, value]) => [name, decodeURIComponent(value ?? '')] as const)
  // A + is a +: only forms of HTML write a space so.
  const parameters = new URLSearchParams(query.replaceAll('+', '%2B'))
  const unknown = [...parameters.keys()].find((name) => !PARAMETERS.includes(name))
  if (unknown) throw new Error(`of parameters, ${PARAMETERS.join(', ')} are supported, not ${unknown}`)
  const { host, port = '', dbname, password = '', ...given } = Object.fromEntries([...decoded, ...parameters])
  if (!host || !dbname || !/^\d*$/.test(port)) {
    throw new Error('it must be like postgres://user:password@host:5432/database, with / in a password as %2F')
  }
  const { user, sslmode = 'disable', sslrootcert, channel_binding } = given
  const ssl = SSL_MODES.find((mode) => mode === sslmode)
  if (!ssl) throw new Error(`sslmode must be one of ${SSL_MODES.join(', ')}`)
  if (channel_binding === 'require') throw new Error('channel_binding=require is not supported: leave it out')
  if (sslrootcert && ssl === 'disable') throw new Error('sslrootcert needs an sslmode such as verify-full')
  const rootCert = sslrootcert && checkRootCert(sslrootcert)
  const login = { user: user || 'postgres', password }
  return { host: parseHost(host), port: Number(port || 5432), database: dbname, ...login, ssl, rootCert }
}

/**
 * Reads a name, an IP address with or without brackets, or the folder of a Unix socket.
 * @throws when it is something else, such as a list of hosts
 */
export function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, '$1')
  if (isIP(host) || /^(\/|[^\s:/@,%[\]]+$)/.test(host)) return host
  throw new Error('a host is one name, one IP address, or the folder of a Unix socket, which begins with /')
}

/**
 * Checks the file of certificates that libpq calls sslrootcert.
 * @returns its path: each connection reads the file, because its authority may be renewed meanwhile
 * @throws when it cannot be read or holds none
 */
export function checkRootCert(path: string): string {
  if (path === 'system') throw new Error('leave out system: verify-full trusts the authorities that Node trusts')
  if (readFileSync(path, 'utf8').includes('-----BEGIN CERTIFICATE-----')) return path
  throw new Error(`${path} holds no certificate`)
}

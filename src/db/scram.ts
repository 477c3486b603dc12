import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'

/** As PostgreSQL has it (its setting scram_iterations). */
const ITERATIONS = 4096

/**
 * The form in which PostgreSQL keeps a password (RFC 5803). Statements that hold it leave the password in no log, as
 * with psql's \password. Of SASLprep (RFC 4013), which makes the forms of a letter one, it has the normal form.
 */
export function scramVerifier(password: string): string {
  const salt = randomBytes(16)
  const salted = pbkdf2Sync(password.normalize('NFKC'), salt, ITERATIONS, 32, 'sha256')
  const key = (name: string) => createHmac('sha256', salted).update(name).digest()
  const stored = createHash('sha256').update(key('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString('base64')}$${stored}:${key('Server Key').toString('base64')}`
}

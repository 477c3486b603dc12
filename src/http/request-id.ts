import { randomUUID } from 'node:crypto'

/** What an X-Request-Id may be. */
const REQUEST_ID = /^[\w.:+/=-]{1,128}$/

/** The caller's `X-Request-Id` where it can stand in a log as it is, else a new one. */
export const requestIdOf = (given: string | undefined): string =>
  given && REQUEST_ID.test(given) ? given : randomUUID()

import type { HttpBindings } from '@hono/node-server'
import type { Logger } from 'pino'

/** What every handler finds in its context. */
export type Env = {
  Bindings: HttpBindings
  Variables: {
    requestId: string
    log: Logger
    /** Of the methods that have one. */
    body: Uint8Array
  }
}

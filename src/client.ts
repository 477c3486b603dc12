import { hc } from 'hono/client'
import type { AppType } from './app.ts'

/**
 * A client whose calls and answers are typed by the service's own routes.
 * @example const { users } = await (await createClient('http://localhost:3000').users.$get({ query: {} })).json()
 */
export const createClient = (baseUrl: string, options?: Parameters<typeof hc>[1]) => hc<AppType>(baseUrl, options)

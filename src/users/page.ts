import { randomUUID } from 'node:crypto'
import { type Context, Hono } from 'hono'
import { csrf } from 'hono/csrf'
import * as z from 'zod'
import { wantsHtml } from '../http/accept.ts'
import { answer } from '../http/answer.ts'
import { entityTag, ifMatch } from '../http/conditional.ts'
import type { Env } from '../http/env.ts'
import { idempotencyOf } from '../http/idempotency.ts'
import { encodeCursor, nextPath, pageOf } from '../http/list.ts'
import { errorPage, page } from '../http/page.ts'
import { PathId } from '../http/path.ts'
import { problemFor } from '../http/problem.ts'
import { done, problemOf } from '../http/refusal.ts'
import { assertMediaType, invalid, valid } from '../http/validate.ts'
import { atVersion } from '../resource.ts'
import { ListQuery, NewUser } from './schemas.ts'
import type { UserStore } from './store.ts'
import { FORMS, type Form, type FormName, type FormValues, formView, listView } from './views.ts'

const NOUN = 'user'
const PAGE_LIMIT = 25
const FORM_MEDIA_TYPES = ['application/x-www-form-urlencoded']

const FormPath = PathId.extend({ form: z.enum(['edit', 'delete']) })

const isFormName = (name = ''): name is FormName => Object.hasOwn(FORMS, name)

/** The list from `cursor` on. */
const listPath = (cursor: string | undefined, done?: FormName) => {
  const query = new URLSearchParams({ ...(cursor && { cursor }), ...(done && { done }) })
  return query.size > 0 ? `/users?${query}` : '/users'
}

function newUserOf({ username, email }: FormValues): NewUser {
  const result = NewUser.safeParse({ username, email })
  if (!result.success) throw invalid(422, result.error.issues)
  return result.data
}

/**
 * The page at `/users`: a person's view of the API, with the same validation and the same store. Forms can only POST, so
 * they have paths of their own, which no other site may make a browser send something to.
 */
export function userPage(store: UserStore) {
  const fromHere = csrf()
  const present = async (c: Context<Env>, id: number) =>
    done(NOUN, atVersion(await store.get(id, c.get('until')), undefined))

  function showForm(c: Context<Env>, name: FormName, form: Form) {
    const { title } = FORMS[name]
    const { status, options } = form.problem ?? {}
    const main = formView(name, form, listPath(c.req.query('cursor')))
    return page(c, { title: form.problem ? `Error: ${title}` : title, main, status, headers: options?.headers })
  }

  /** Does what a form asks for, and leads to the path that `run` returns; or shows the form again, with what was wrong. */
  async function submit(c: Context<Env>, name: FormName, run: (values: FormValues) => Promise<string>, id?: number) {
    try {
      await fromHere(c, async () => {})
    } catch (error) {
      return errorPage(error as Error, c)
    }
    assertMediaType(c, FORM_MEDIA_TYPES)
    const values: FormValues = Object.fromEntries(new URLSearchParams(String(c.get('body'))))
    try {
      return answer(c, null, 303, { Location: await run(values) })
    } catch (error) {
      const problem = problemFor(error as Error, c)
      if (problem.options.type === 'idempotency-key-reused') values.key = randomUUID()
      if (problem.status !== 412 || id === undefined) return showForm(c, name, { values, problem })
      const now = await present(c, id)
      return showForm(c, name, { values: { ...values, etag: entityTag(now.version) }, problem, present: now })
    }
  }

  return new Hono<Env>()
    .get('/users', async (c, next) => {
      if (!wantsHtml(c)) return next()
      // A form sends its empty fields, too.
      const { done: name, ...sought } = Object.fromEntries(Object.entries(c.req.query()).filter(([, value]) => value))
      const query = ListQuery.safeParse(sought)
      const problem = query.error && invalid(400, query.error.issues)
      const { limit = PAGE_LIMIT, cursor: after = 0, username, email } = query.data ?? {}
      const found = problem ? [] : await store.list({ limit: limit + 1, after, username, email }, c.get('until'))
      const { rows: users, next: cursor } = pageOf(found, limit)
      const search = listPath(sought.cursor).slice('/users'.length)
      const list = {
        users,
        sought,
        problem,
        done: isFormName(name) ? name : undefined,
        next: nextPath(c, cursor),
        search,
      }
      return page(c, { title: problem ? 'Error: Users' : 'Users', main: listView(list), status: problem?.status })
    })

    .all('/users/:id', (c, next) => {
      // Not a path of its own: one beside `/users/:id` would turn Hono to its slower router, for every request.
      const { method } = c.req
      if (c.req.param('id') !== 'new' || !['GET', 'HEAD', 'POST'].includes(method)) return next()
      if (method !== 'POST') return showForm(c, 'new', { values: { key: randomUUID() } })
      return submit(c, 'new', async (values) => {
        const user = newUserOf(values)
        const idempotency = idempotencyOf(c, [user.username, user.email], values.key)
        const { id } = done(NOUN, await store.create({ ...user, ...idempotency }, c.get('until')))
        // The page that ends with the new user, where ids have no gaps.
        return `${listPath(id > PAGE_LIMIT ? encodeCursor(id - PAGE_LIMIT) : undefined, 'new')}#user-${id}`
      })
    })

    .get('/users/:id/:form{edit|delete}', valid('param', FormPath), async (c) => {
      const { id, form } = c.req.valid('param')
      const { username, email, version } = await present(c, id)
      return showForm(c, form, { values: { username, email, etag: entityTag(version) } })
    })

    .post('/users/:id/:form{edit|delete}', valid('param', FormPath), (c) => {
      const { id, form } = c.req.valid('param')
      const change = async ({ etag = '', ...values }: FormValues) => {
        const [versions, until] = [ifMatch(etag), c.get('until')]
        const result =
          form === 'edit'
            ? await store.update(id, newUserOf(values), versions, until)
            : await store.remove(id, versions, until)
        if (result && 'outcome' in result) throw problemOf(NOUN, result)
        return `${listPath(c.req.query('cursor'), form)}#user-${id}`
      }
      return submit(c, form, change, id)
    })
}

// The least that a Node server can do: node:http and postgres.js, no validation, no limits, no deadlines.
import { createServer } from 'node:http'
import postgres from 'postgres'

const sql = postgres(process.env.DATABASE_URL as string, { max: 10 })

createServer(async (request, response) => {
  const url = new URL(request.url as string, 'http://localhost')
  let status = 200
  let body: unknown
  if (request.method === 'POST') {
    let text = ''
    for await (const chunk of request) text += chunk
    const { username, email } = JSON.parse(text)
    const rows =
      await sql`insert into users (username, email) values (${username}, ${email}) returning id, username, email, created_at, updated_at`
    body = rows[0]
    status = 201
  } else if (url.pathname === '/users') {
    const limit = url.searchParams.get('limit') ?? 100
    body = {
      users: await sql`select id, username, email, created_at, updated_at from users order by id limit ${limit}`,
    }
  } else {
    const rows =
      await sql`select id, username, email, created_at, updated_at from users where id = ${url.pathname.slice('/users/'.length)}`
    body = rows[0]
  }
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}).listen(Number(process.env.PORT), '127.0.0.1')

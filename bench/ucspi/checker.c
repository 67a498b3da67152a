/* What a program in the chain has to do for a connection, and no more: find the address's file in
   RELAY_CTRL_DIR, see that it has not lapsed, export what it says, set RELAYCLIENT, become the next program. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
    const char *address = getenv("TCPREMOTEIP"), *directory = getenv("RELAY_CTRL_DIR");
    const char *expiry = getenv("RELAY_CTRL_EXPIRY");
    char path[512], content[8193];
    struct stat state;
    int file;

    if (count < 2 || !address || !directory)
        return 111;
    if (!getenv("RELAYCLIENT")) {
        snprintf(path, sizeof path, "%s/%s", directory, address);
        file = open(path, O_RDONLY);
        if (file >= 0) {
            if (!fstat(file, &state) && state.st_mtime + (expiry ? atoi(expiry) : 900) >= time(0)) {
                long size = read(file, content, sizeof content - 1);
                char *at;
                content[size > 0 ? size : 0] = 0;
                for (at = content; at < content + size; at += strlen(at) + 1)
                    if (strchr(at, '='))
                        putenv(strdup(at));
                setenv("RELAYCLIENT", "", 1);
            }
            close(file);
        }
    }
    execvp(words[1], words + 1);
    return 111;
}

/* The program of a connection: says whether its client may relay, and ends. */
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    return getenv("RELAYCLIENT") ? write(1, "yes\n", 4) != 4 : write(1, "no\n", 3) != 3;
}
